"""Questions as rows of pieces, and answers from a model's logits: strided windows and the choice of a span.

Both as in the code released with BERT (arXiv 1810.04805): a context too long for a row is read in windows that overlap.
"""

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np

from jaxdistill.data.vocab import Vocabulary
from jaxdistill.data.windows import runs
from jaxdistill.errors import UserError
from jaxdistill.tasks.task import Questions

_ADDED = 3  # [CLS] question [SEP] context [SEP]
_BLOCK = 2048  # texts or windows at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """Rows `[CLS] question [SEP] part of the context [SEP]`, those of a question one after the other.

    Attributes:
      ids: the pieces of each row, int32 [pieces].
      types: 0 up to the first `[SEP]`, then 1, int32 [pieces].
      question: the number of each row's question, int32 [windows].
      lead: where the context starts in each row, int32 [windows].
      begin: which piece of the context that is, int32 [windows].
      targets: the first and the last position of the first right answer in each row, both 0 (`[CLS]`) where it is not
        wholly there, int32 [windows, 2]; None where right answers are not known.
      chars: for each question, where the pieces of its context start and end in it, int32 [pieces of the context, 2].
    """

    ids: tuple[np.ndarray, ...]
    types: tuple[np.ndarray, ...]
    question: np.ndarray
    lead: np.ndarray
    begin: np.ndarray
    targets: np.ndarray | None
    chars: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """How many pieces each row has, int32 [windows]."""
        return np.fromiter(map(len, self.ids), np.int32, len(self))

    @functools.cached_property
    def stops(self) -> np.ndarray:
        """Where the context ends in each row, int32 [windows]."""
        return self.lengths - 1

    @functools.cached_property
    def widest(self) -> np.ndarray:
        """Positions of the context that no other window shows with more around them, bool [windows, longest row].

        BERT's rule: the smaller of the pieces on the left and on the right counts, plus a hundredth of the part's
        length; the first window wins a tie. Each piece of a context is widest in one window.
        """
        sizes = self.stops - self.lead
        within = runs(np.zeros(len(self), np.int64), sizes)
        window = np.repeat(np.arange(len(self)), sizes)
        context = np.cumsum([0, *map(len, self.chars)])
        piece = context[self.question[window]] + self.begin[window] + within
        around = np.minimum(within, sizes[window] - 1 - within) + 0.01 * sizes[window]
        most = np.zeros(context[-1])
        np.maximum.at(most, piece, around)
        shown = np.flatnonzero(around == most[piece])
        _, first = np.unique(piece[shown], return_index=True)
        widest = np.zeros((len(self), int(self.lengths.max(initial=0))), bool)
        widest[window[shown[first]], (self.lead[window] + within)[shown[first]]] = True
        return widest


def windows(
    vocabulary: Vocabulary, questions: Questions, length: int = 384, stride: int = 128, max_question: int = 64
) -> Windows:
    """Cuts questions and their contexts into rows.

    Args:
      vocabulary: of the model that will read the rows.
      questions: what to cut; a special piece written in them, as `[SEP]`, is plain text.
      length: the most pieces of a row, specials counted.
      stride: how many pieces of the context a window starts after the one before it, as in BERT's code (`transformers`'
        tokenizers call the *overlap* of two windows stride); where a row holds fewer, as many as it holds.
      max_question: a longer question is cut to its first so many pieces.

    Raises:
      UserError: there are no questions, a row leaves no room for its context, or a number is not positive.
    """
    if min(stride, max_question) < 1:
        raise UserError(f"stride {stride} and longest question {max_question}: both must be at least 1")
    if not len(questions):
        raise UserError(f"{questions.task.name}: split {questions.split!r} has no questions")
    asked = [ids[:max_question] for ids, _ in _cut(vocabulary, questions.questions)]
    room = np.array([length - _ADDED - len(ids) for ids in asked])
    if room.min() < 1:
        row = int(room.argmin())
        raise UserError(
            f"length {length} leaves no room for the context beside the {len(asked[row])} pieces of question "
            f"{questions.ids[row]}: give a length of more than {len(asked[row]) + _ADDED}, or cut questions shorter"
        )
    distinct = list(dict.fromkeys(questions.contexts))
    cuts = dict(zip(distinct, _cut(vocabulary, distinct), strict=True))
    read, chars = zip(*(cuts[text] for text in questions.contexts), strict=True)
    step = np.minimum(stride, room)
    count = 1 + np.maximum(-((room - np.array([len(ids) for ids in read])) // step), 0)
    question = np.repeat(np.arange(len(questions)), count)
    begin = runs(np.zeros(len(count), np.int64), count) * step[question]
    lead = (length - 1 - room)[question]
    cls, sep = np.array([vocabulary.cls], np.int32), np.array([vocabulary.sep], np.int32)
    ids = tuple(
        np.concatenate([cls, asked[row], sep, read[row][first : first + room[row]], sep])
        for row, first in zip(question, begin, strict=True)
    )
    found = Windows(
        ids=ids,
        types=tuple((np.arange(len(row)) >= first).astype(np.int32) for row, first in zip(ids, lead, strict=True)),
        question=question.astype(np.int32),
        lead=lead.astype(np.int32),
        begin=begin.astype(np.int32),
        targets=None,
        chars=chars,
    )
    return found if questions.answers is None else dataclasses.replace(found, targets=_targets(found, questions))


def _cut(vocabulary: Vocabulary, texts: Iterable[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The pieces of each text, int32 [pieces], and where they start and end in it, int32 [pieces, 2]."""
    tokenizer, found, texts = vocabulary.word_tokenizer(), [], list(texts)
    for at in range(0, len(texts), _BLOCK):
        for encoding in tokenizer.encode_batch(texts[at : at + _BLOCK], add_special_tokens=False):
            found.append((np.array(encoding.ids, np.int32), np.array(encoding.offsets, np.int32).reshape(-1, 2)))
    return found


def _targets(windows: Windows, questions: Questions) -> np.ndarray:
    """Positions of the first and last piece that hold some of the first right answer, int32 [windows, 2].

    Both are 0 where the row does not hold them, where there is no right answer, or where none of it is in a piece.
    """
    pieces = np.full((len(questions), 2), -1)
    for row, (answers, starts) in enumerate(zip(questions.answers, questions.starts, strict=True)):
        if answers:
            first = np.searchsorted(windows.chars[row][:, 1], starts[0], side="right")
            last = np.searchsorted(windows.chars[row][:, 0], starts[0] + len(answers[0]), side="left") - 1
            if first <= last:
                pieces[row] = first, last
    positions = pieces[windows.question] + (windows.lead - windows.begin)[:, None]
    inside = (positions[:, 0] >= windows.lead) & (positions[:, 1] < windows.stops)
    return np.where(inside[:, None], positions, 0).astype(np.int32)


def select(
    windows: Windows,
    questions: Questions,
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    n_best: int = 20,
    max_answer: int = 30,
    threshold: float | None = None,
) -> tuple[dict[str, str], dict[str, float]]:
    """The best span of each question over all its windows, as BERT's code chooses it.

    A span's score is the logit of its start plus that of its end. The start is among the `n_best` of its row, and no
    other row shows more around it (`Windows.widest`); the end is among the `n_best` of the same row, in the context and
    not before the start; there are at most `max_answer` pieces. Of equal scores the earlier row wins, then the higher
    start, then the higher end. (BERT's code also ranks the logits of padding; here there is none.)

    Args:
      windows: the rows.
      questions: what they were made of.
      start_logits: float [windows, positions]; those behind the end of a row are not read.
      end_logits: the same.
      n_best: how many starts and ends are looked at.
      max_answer: the most pieces of an answer.
      threshold: where `no_answer` is above it, the answer is ""; None for questions that all have answers, or to let
        `answers.score_answers` apply it.

    Returns:
      The answers by id, cut from the context as written, "" where a question has no such span. And `no_answer` by id:
      the lowest score of `[CLS]` over the question's windows, minus that of the best span (0.0 where there is none).

    Raises:
      UserError: a logit is not a number.
      ValueError: the logits or the questions are not those of the windows.
    """
    wanted = (len(windows), int(windows.lengths.max(initial=0)))
    for logits in (start_logits, end_logits):
        if logits.ndim != 2 or len(logits) != wanted[0] or logits.shape[1] < wanted[1]:
            raise ValueError(f"logits are {logits.shape}, the windows {wanted}")
    if len(questions) != len(windows.chars):
        raise ValueError(f"{len(questions)} questions, windows of {len(windows.chars)}")
    blocks = [
        _best_spans(windows, slice(at, at + _BLOCK), start_logits, end_logits, n_best, max_answer)
        for at in range(0, len(windows), _BLOCK)
    ]
    scores, nulls, firsts, lasts = map(np.concatenate, zip(*blocks, strict=True))
    best, null = np.full(len(questions), -np.inf), np.full(len(questions), np.inf)
    np.maximum.at(best, windows.question, scores)
    np.minimum.at(null, windows.question, nulls)
    winners = np.flatnonzero(scores == best[windows.question])
    chosen = np.zeros(len(questions), np.int64)
    chosen[windows.question[winners][::-1]] = winners[::-1]
    texts, no_answer = {}, {}
    for row, key in enumerate(questions.ids):
        some, window = best[row] > -np.inf, chosen[row]
        no_answer[key] = float(null[row] - (best[row] if some else 0.0))
        texts[key] = ""
        if some and (threshold is None or no_answer[key] <= threshold):
            pieces = np.array([firsts[window], lasts[window]]) - windows.lead[window] + windows.begin[window]
            start, stop = windows.chars[row][pieces, [0, 1]]
            texts[key] = questions.contexts[row][start:stop]
    return texts, no_answer


def _best_spans(windows: Windows, rows: slice, start_logits, end_logits, n_best: int, max_answer: int):
    """For each of some rows the best span's score, the score of `[CLS]`, and the span's first and last position.

    Each is [rows]; the score of a row without a span is minus infinity.
    """
    width = windows.widest.shape[1]
    position, stops = np.arange(width)[None], windows.stops[rows, None]
    starts, ends = (
        np.where(position <= stops, logits[rows, :width].astype(np.float64), -np.inf)
        for logits in (start_logits, end_logits)
    )
    if np.isnan(starts).any() or np.isnan(ends).any():
        raise UserError("the model's logits are not numbers: its training has diverged; use a smaller learning rate")
    first, last = (np.argsort(-logits, axis=1, kind="stable")[:, :n_best] for logits in (starts, ends))
    allowed = np.take_along_axis(windows.widest[rows], first, axis=1)[:, :, None]
    allowed = allowed & ((last >= windows.lead[rows, None]) & (last < stops))[:, None]
    span = last[:, None] - first[:, :, None]
    scores = np.take_along_axis(starts, first, axis=1)[:, :, None] + np.take_along_axis(ends, last, axis=1)[:, None]
    scores = np.where(allowed & (span >= 0) & (span < max_answer), scores, -np.inf).reshape(len(first), -1)
    best = scores.argmax(axis=1)
    each = np.arange(len(first))
    start, end = np.divmod(best, last.shape[1])
    return scores[each, best], starts[:, 0] + ends[:, 0], first[each, start], last[each, end]

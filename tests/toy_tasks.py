"""Tiny files of tasks, as GLUE's and SQuAD's own downloads have them."""

import json

# Of each task of GLUE, as its own download writes them: the folder, a file with labels, the test file, and what is in
# the first: (first text, second text, the label's name or the score).
MNLI_HEADER = "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse"
MNLI_HEADER += "\tsentence2_parse\tsentence1\tsentence2"
STSB_HEADER = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
GLUE_FILES = {
    "cola": (
        "CoLA",
        'gj04\t1\t\tHe said "no.\ngj04\t0\t*\tThey drank the pub.\n',
        "index\tsentence\n0\ta\n1\tb\n",
        [('He said "no.', None, "acceptable"), ("They drank the pub.", None, "unacceptable")],
    ),
    "sst2": (
        "SST-2",
        "sentence\tlabel\nit 's charming . \t1\r\nbleak \t0\r\n",
        "index\tsentence\n0\ta\n1\tb\n",
        [("it 's charming . ", None, "positive"), ("bleak ", None, "negative")],
    ),
    "mrpc": (
        "MRPC",
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\t" He said\tHe said "\n0\t9\t10\tOne\tTwo\n',
        "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\ta\tb\n1\t3\t4\tc\td\n",
        [('" He said', 'He said "', "equivalent"), ("One", "Two", "not_equivalent")],
    ),
    "stsb": (
        "STS-B",
        STSB_HEADER
        + "\tscore\n0\tg\tf\t2012\t0\tn\tn\tA plane.\tAn air plane.\t5.000\n1\tg\tf\t2012\t4\tn\tn\tA\tB\t3.25",
        STSB_HEADER + "\n0\tg\tf\t2012\t0\tn\tn\ta\tb\n1\tg\tf\t2012\t0\tn\tn\tc\td\n",
        [("A plane.", "An air plane.", 5.0), ("A", "B", 3.25)],
    ),
    "qqp": (
        "QQP",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n31\t1\t2\tWho?\tWhom?\t1\n77\t3\t4\tWhen?\tWhere?\t0\n",
        "id\tquestion1\tquestion2\n0\ta\tb\n1\tc\td\n",
        [("Who?", "Whom?", "duplicate"), ("When?", "Where?", "not_duplicate")],
    ),
    "mnli": (
        "MNLI",
        MNLI_HEADER + "\tlabel1\tgold_label\n0\t\t\tg\t\t\t\t\tA man.\tA boy.\tneutral\tcontradiction\n"
        "1\t\t\tg\t\t\t\t\tA cat.\tAn animal.\tentailment\tentailment\n2\t\t\tg\t\t\t\t\tA\tB\tneutral\tneutral\n",
        MNLI_HEADER + "\n0\t\t\tg\t\t\t\t\ta\tb\n1\t\t\tg\t\t\t\t\tc\td\n",
        [("A man.", "A boy.", "contradiction"), ("A cat.", "An animal.", "entailment"), ("A", "B", "neutral")],
    ),
    "qnli": (
        "QNLI",
        "index\tquestion\tsentence\tlabel\n0\tWhat?\tThis.\tentailment\n1\tWho?\tNobody.\tnot_entailment\n",
        "index\tquestion\tsentence\n0\ta\tb\n1\tc\td\n",
        [("What?", "This.", "entailment"), ("Who?", "Nobody.", "not_entailment")],
    ),
    "rte": (
        "RTE",
        "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tnot_entailment\n1\tC\tD\tentailment\n",
        "index\tsentence1\tsentence2\n0\ta\tb\n1\tc\td\n",
        [("A", "B", "not_entailment"), ("C", "D", "entailment")],
    ),
    "wnli": (
        "WNLI",
        "index\tsentence1\tsentence2\tlabel\n0\tThe drain.\tThe hair.\t0\n1\tJane.\tSusan.\t1\n",
        "index\tsentence1\tsentence2\n0\ta\tb\n1\tc\td\n",
        [("The drain.", "The hair.", "not_entailment"), ("Jane.", "Susan.", "entailment")],
    ),
}
PARTS = {"dev": "dev_matched", "test": "test_matched"}


def write_glue(folder, name, split, text):
    """Writes a split's file where GLUE's download has it."""
    path = folder / GLUE_FILES[name][0] / f"{PARTS.get(split, split) if name == 'mnli' else split}.tsv"
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(text.encode())
    return path


def label_names(examples):
    return [examples.task.labels[number] for number in examples.labels]


def squad_file(*asked, context="The cat sat on the mat. The cat slept."):
    content = {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(asked)}]}]}
    return json.dumps(content)


def asked(name="q1", question="Who sat?", answers=(("The cat", 0), ("The cat", 24)), **more):
    answers = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": name, "question": question, "answers": answers, **more}


POSSIBLE = asked("q2", is_impossible=False)
IMPOSSIBLE = asked("q3", "Who ran?", (), is_impossible=True, plausible_answers=[{"text": "cat", "answer_start": 4}])

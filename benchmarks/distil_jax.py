"""Our side of `distil.py`: one process that runs the step of configs/distilbert.py."""

from distil import experiment
from step_jax import SETTINGS, serve

from jaxdistill.step import init_state

if __name__ == "__main__":
    job = experiment(SETTINGS)
    serve(job, init_state(job))

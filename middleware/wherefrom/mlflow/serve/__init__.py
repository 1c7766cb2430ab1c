"""The part of MLflow's REST API that its Python client reads traces by, answered from a store.

Paths, fields and error codes are those of MLflow 3.17's server, so that ``mlflow.set_tracking_uri`` is all
that code written for MLflow needs. Ids of experiments are those of the store.
"""

from __future__ import annotations

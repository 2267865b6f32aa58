"""Searches for a small, accurate digit classifier, retrains and exports the best, and runs it."""

import runpy

from evaluators.cost import CostEvaluator
from evaluators.staged import Staged
from evaluators.training import TrainingEvaluator
from nas import Budget, History, Serial, maximize, minimize, retrain_and_export, watch
from nas.data import digits
from search_spaces.nasbench201 import NasBench201
from strategies.regularized_evolution import RegularizedEvolution

data, history = digits(), History("runs/quickstart")
space = NasBench201(channels=16, cells=1, input=data.input, classes=data.classes)
objectives = (maximize("accuracy"), minimize("macs"))
strategy = RegularizedEvolution(space, objectives, seed=0, population_size=12, sample_size=4)
evaluator = Staged([CostEvaluator(space), TrainingEvaluator(space, data, epochs=4)], objectives)
for trial in watch(strategy, evaluator, Serial(), Budget(trials=30), history):
    print(trial)
best = history.best("accuracy", among=history.front(objectives))
folder, facts = retrain_and_export(space, best.arch, data, "runs/quickstart/network", epochs=40)
print(f"{facts}\nrun, front.png: {history.folder}; network: {folder}; running its model.py:")
runpy.run_path(str(folder / "model.py"), run_name="__main__")

"""Which cases are alike: the nearest by dynamic time warping, and the path between two. Needs prismts[bench]."""

from prismts.analysis.similarity import nearest, pairwise, path
from prismts.data.synthetic import labeled_motions

cases = labeled_motions(18, n_timepoints=60, seed=0)
found = nearest(cases.test, cases.train, k=2, method="dtw", window=0.1)
for case, neighbors, distances in zip(cases.test.names, found.indices, found.distances, strict=True):
    print(f"case {case}: nearest are {cases.train.labels[neighbors]} at {distances.round(1)}")
print("distances among the training cases:", pairwise(cases.train, method="msm").shape)

way = path(cases.train[0], cases.train[3], window=0.1)
print("largest shift on the way:", int(abs(way.steps[:, 0] - way.steps[:, 1]).max()), "steps")

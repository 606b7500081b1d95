"""
The tree of a tree-augmented naive Bayes classifier
===================================================

Every measurement of a wine depends on its cultivar and on at most one other measurement. Thick lines are large tables.
"""

from sklearn.datasets import load_wine

from effml.bayes import TANClassifier

wine = load_wine(as_frame=True)
TANClassifier(max_bins=4, n_bits=4).fit(wine.data, wine.target).plot_structure(class_name="cultivar")

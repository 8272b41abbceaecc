"""Agreement of scores with people's labels, and calibration: a map from scores to probabilities.

- `statistics`: correlations, accuracies and thresholds, with bootstrap intervals by document
- `labelled`: reading labelled summaries
- `agreement`: the agreement of several scores with the labels
- `fitting`: fitting a calibration, and measuring how reliable it is
- `measuring`: scoring labelled summaries, measuring the probabilities of a calibration, and warnings of few labels
- `tables`: the tables of a page and of a terminal
- `page`: the pages of an agreement and of a calibration, with reliability plots
"""

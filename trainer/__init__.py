"""Server-side training: data sets, models, losses, evaluation, gallery embedding."""

"""Tables and plots of what a search found."""

from effml.report.plots import plot_pareto
from effml.report.tables import ParetoRow, pareto_rows, pareto_table

__all__ = ["ParetoRow", "pareto_rows", "pareto_table", "plot_pareto"]

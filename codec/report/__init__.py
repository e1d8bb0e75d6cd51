"""A model's report: one offline page that says what its zeros are worth, and what to do.

facts       what the page shows, as plain data: plans, curves, density maps, advice in words
charts      the curves, by plotly
page        the page: all of it in one file (page.html is its frame)
"""

from codec.report.page import report

__all__ = ["report"]

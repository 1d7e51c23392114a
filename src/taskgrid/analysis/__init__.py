"""Analysis of rows: selection on validation, intervals, summaries. No model is involved."""

"""The experiment grid: what a trial is, which are pending, how they run and where their results are kept."""

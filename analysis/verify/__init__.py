"""Every number of a report, derived again from what the trials left behind; shares no function with the report."""

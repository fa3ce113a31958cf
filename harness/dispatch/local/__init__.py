"""Jobs on this host: its worker processes, and what each of them is told to do."""

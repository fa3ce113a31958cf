"""What a run of jobs is, wherever they run: the loop, its forecasts, retries and display, and the interface of a backend."""

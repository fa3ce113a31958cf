"""Jobs on a SLURM cluster: what is asked of sbatch, what the queue says, and the task that runs on a node."""

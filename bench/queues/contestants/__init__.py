"""One module for each job queue that is measured."""

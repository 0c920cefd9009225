"""A run of the tagger over files: from a job to outputs, rejected rows and a report."""

"""Where bytes live: local files, standard streams, remote storage; read as streams, written atomically."""

"""From texts to entities: tokens, segments, batches, logits, candidates. Nothing here knows files or Arrow."""

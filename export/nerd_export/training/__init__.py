"""Fine-tuning: from labelled words to a Hugging Face checkpoint."""

"""The standard fine-tune: labelled words in, a Hugging Face checkpoint out."""

"""What comes over the network: repositories of the Hugging Face hub, and single files."""

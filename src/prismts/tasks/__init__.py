"""What is asked of a model: which head, which loss, which prediction."""

"""M-STAR: self-evolving training of large multimodal models, on PyTorch Lightning and vLLM."""

"""Owns the compressed model as files: what `trimtab apply` writes, and reading it again.

One format a module: native.py (everything, exactly), compressed_tensors.py, gptq.py, awq.py and
gguf*.py (what others read, as far as they can hold it). Importing this imports no torch.
"""

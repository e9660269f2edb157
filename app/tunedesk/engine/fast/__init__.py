"""The fast training path: rows joined end to end, lean adapters, one function for a whole decoder layer."""

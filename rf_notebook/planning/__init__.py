"""Pure decisions: where chunks end, who is next, when it will be over."""

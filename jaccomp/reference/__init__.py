"""References that do not share the derivation: interpreters, the ladder of checks, its report and its mutants."""

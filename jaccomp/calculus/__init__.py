"""Differentiation: `Program -> Program`, from one table of scalar functions and the reducers."""

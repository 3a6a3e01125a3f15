"""Jacobian blocks in the notation of matrices: `diag(y) - y yᵀ`, derived from their constraints and coefficients."""

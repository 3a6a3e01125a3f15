"""What Jacobians say of a model: operators, spectra, propagation by depth, sensitivity. Nothing here forms a matrix
that it need not.
"""

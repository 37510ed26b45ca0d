//! The plan of a model: operations with shapes, arena offsets, floating-point operations and bytes. Pure.

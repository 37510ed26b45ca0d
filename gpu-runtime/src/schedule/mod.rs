//! Noise schedules and samplers: LCM, DPM-Solver++, Euler, DDIM. Pure f64.

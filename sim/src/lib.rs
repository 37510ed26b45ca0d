//! The discrete-event simulator and the planner that searches with it.

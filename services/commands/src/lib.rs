//! Commands: send, queue, state machine.

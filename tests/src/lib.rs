//! The testbed and the VM tests that run in it.

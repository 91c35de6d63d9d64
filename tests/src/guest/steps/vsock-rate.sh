# How fast a socket to the host is.
load vsock
say $(nested measure-peer vsock:2:5001)

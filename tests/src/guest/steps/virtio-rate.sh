# After user-net: how fast connections by the network card are.
say $(nested measure-peer tcp:$peer:4003)

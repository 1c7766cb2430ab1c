"""Live traces and spans, the recorder that begins and ends them, and the protocol for other tracers."""

//! What every gRPC server of Weir shares: Status mapping, conversions, authentication.

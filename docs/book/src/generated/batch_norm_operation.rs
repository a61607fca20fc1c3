let (mean, variance) = (x.mean(&folded), x.variance(&folded));
// One multiply-add an element: the scale is made once a channel.
let scale = (&variance + eps).sqrt().reciprocal() * gamma;
// Stretched to the views first, so that its gradient is the same per-view channel sum that
// the mean's gradient needs, and only then a sum over views.
let shift = beta.broadcast_to(mean.shape());
let output = (&x - &mean) * scale + shift;

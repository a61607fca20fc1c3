let (mean, variance) = (x.mean(&folded), x.variance(&folded));
let (mean, variance) = match share {
    None => (mean, variance),
    Some(share) => {
        let whole = (&mean * share).all_reduce(Transfer::F32);
        // The deviation of the parts' means adds to the variance of each. Its derivative by the mean
        // of all is zero.
        let apart = (&mean - whole.detach()).square();
        let variance = ((variance + apart) * share).all_reduce(Transfer::F32);
        (whole, variance)
    }
};
// One multiply-add an element: the scale is made once a channel. A division rounds once where a
// reciprocal and a product round twice.
let scale = gamma / (&variance + eps).sqrt();
// Stretched to the views first, so that its gradient is the same per-view channel sum that
// the mean's gradient needs, and only then a sum over views.
let shift = beta.broadcast_to(mean.shape());
let output = (&x - &mean) * scale + shift;

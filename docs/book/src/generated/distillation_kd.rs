let (s, t) = batch.pair(self.about())?;
let kd = divergence(&s, &t, &[self.temperature]) * (1.0 / batch.size() as f64);
Ok(Loss::sum(vec![
    ("ce", nn::loss::cross_entropy(&s, &batch.labels) * self.ce_weight),
    ("kd", kd * self.kd_weight),
]))

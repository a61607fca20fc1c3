let (s, t) = logits.pair(self.about())?;
let kd = divergence(&s, &t, &[self.temperature]) * (1.0 / logits.batch() as f64);
Ok(Loss::sum(vec![
    ("ce", nn::loss::cross_entropy(&s, &logits.labels) * self.ce_weight),
    ("kd", kd * self.kd_weight),
]))

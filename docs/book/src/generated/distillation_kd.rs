let (s, t) = batch.pair(self.about())?;
let kd = divergence(&s, &t, &[self.temperature]) * (1.0 / batch.size() as f64);
Ok(Loss::sum(vec![
    ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
    ("kd", kd * self.kd_weight),
]))

let (y, gate) = (&batch.stacked_labels(), &batch.factor);
let per_image = 1.0 / batch.size() as f64;
let teacher = divergence(&s, &swap(&t, y), &self.temperatures) * per_image;
let student = gate
    * pseudo_teacher_divergence(&s, y, &self.temperatures, self.detach_pseudo_teacher)
    * per_image;
let (weak_s, weak_t) = (batch.weak(&s), batch.weak(&t));

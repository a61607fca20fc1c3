//! The program: configs, data, augmentation, distillers, trainer, reports.

//! What models cost, as it is written down.
use tollgate::price::{Price, PriceTable};
use toml::Spanned;

use super::{ConfigError, file};

/// The table.
pub(super) fn prices(text: &str, told: &Spanned<file::Prices>) -> Result<PriceTable, ConfigError> {
    let file = told.get_ref();
    let mut table = match &file.table {
        Some(_) if file.shipped => {
            return Err(ConfigError::at(
                text,
                told.span(),
                "prices are the shipped ones or a table of your own",
            ));
        }
        Some(path) => {
            let wrong = |why: String| {
                ConfigError::at(
                    text,
                    path.span(),
                    format!("{}: {why}", path.get_ref().display()),
                )
            };
            let json =
                std::fs::read_to_string(path.get_ref()).map_err(|why| wrong(why.to_string()))?;
            PriceTable::from_json(&json).map_err(|why| wrong(why.to_string()))?
        }
        None if file.shipped => PriceTable::shipped(),
        None => PriceTable::new(),
    };
    for (model, told) in &file.models {
        let file = told.get_ref();
        let price = Price::per_million(&file.input, &file.output).and_then(|price| {
            match &file.cached_input {
                Some(cached) => price.cached(cached),
                None => Ok(price),
            }
        });
        let price =
            price.map_err(|why| ConfigError::at(text, told.span(), format!("{model}: {why}")))?;
        table = table.with(model.as_str(), price);
    }
    Ok(table)
}

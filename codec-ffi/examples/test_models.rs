//! Writes the small models of the tests into a folder: `test_models FOLDER`.

#[path = "../tests/support/models.rs"]
mod models;

fn main() {
    let folder = std::env::args().nth(1).expect("the folder to write to");
    for name in models::MODELS {
        models::write(name, &std::path::Path::new(&folder).join(format!("{name}.safetensors")));
    }
}

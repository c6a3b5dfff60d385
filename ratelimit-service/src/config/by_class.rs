//! Mappings with a key for each class of token.

/// A mapping that has a key for each class of token, beside those given.
macro_rules! by_class {
    ($name:ident<$value:ty> { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            $($(#[$attribute])* $field: $type,)*
            input: Option<$value>,
            cache_read: Option<$value>,
            cache_write: Option<$value>,
            cache_write_1h: Option<$value>,
            audio_input: Option<$value>,
            output: Option<$value>,
            reasoning: Option<$value>,
            audio_output: Option<$value>,
        }

        impl $name {
            /// Those that are given.
            fn classes(&self) -> impl Iterator<Item = (tollgate_domain::TokenClass, $value)> {
                use tollgate_domain::TokenClass;
                [
                    (TokenClass::Input, self.input),
                    (TokenClass::CacheRead, self.cache_read),
                    (TokenClass::CacheWrite, self.cache_write),
                    (TokenClass::CacheWrite1h, self.cache_write_1h),
                    (TokenClass::AudioInput, self.audio_input),
                    (TokenClass::Output, self.output),
                    (TokenClass::Reasoning, self.reasoning),
                    (TokenClass::AudioOutput, self.audio_output),
                ]
                .into_iter()
                .filter_map(|(class, value)| value.map(|value| (class, value)))
            }
        }
    };
}

pub(super) use by_class;

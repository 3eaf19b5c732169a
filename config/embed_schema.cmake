# Writes the text of INPUT as a C++ string constant to OUTPUT.
file(READ ${INPUT} text)
file(WRITE ${OUTPUT}
  "#include \"config/schema_text.h\"\n\nnamespace vswitch {\n\n"
  "std::string_view schema_text() noexcept { return R\"json(${text})json\"; }\n\n}  // namespace vswitch\n")
